"""Pictures of objects by Detectron2's visualizer, with labels that can be read at any size."""

import matplotlib.colors
import numpy as np
from detectron2.utils.visualizer import VisImage, Visualizer

SMALL, ENLARGED = 400, 640  # pixels of the longer side


def picture_scale(height: int, width: int) -> int:
    """The scale of a picture: 1, or for an image below 400 pixels an integer that makes it about 640."""
    longer = max(height, width)
    return 1 if longer >= SMALL else round(ENLARGED / longer)


class LabelVisualizer(Visualizer):
    """Detectron2's visualizer with light labels of at least 7 points inside the picture.

    Detectron2's own labels have less than that in enlarged images, can be dark blue on black, and are clipped
    at the right and the lower border.
    """

    def __init__(self, img_rgb: np.ndarray, metadata: object = None, scale: float | None = None) -> None:
        """`img_rgb` is (H, W, 3); a `scale` of None is that of `picture_scale`."""
        scale = scale or picture_scale(*np.shape(img_rgb)[:2])
        super().__init__(img_rgb, metadata, scale)
        side = np.sqrt(self.output.height * self.output.width)
        self._default_font_size = max(side / 90, 10 / scale)  # Detectron2 rounds both down

    def draw_text(
        self,
        text: str,
        position: tuple[float, float],
        *,
        font_size: float | None = None,
        color: object = "g",
        **options: object,
    ) -> VisImage:
        """As Detectron2's, then moved into the picture."""
        font_size = max(font_size or self._default_font_size, 7 / self.output.scale)
        light = 0.65 + 0.35 * np.array(matplotlib.colors.to_rgb(color))
        super().draw_text(text, position, font_size=font_size, color=light, **options)
        label, axes = self.output.ax.texts[-1], self.output.ax
        box = label.get_window_extent(self.output.canvas.get_renderer())
        width, height = self.output.canvas.get_width_height()
        # Pixels of the picture, from its lower left corner. The start of a label comes first.
        right = max(-box.x0, min(0, width - box.x1))
        up = min(height - box.y1, max(0, -box.y0))
        x, y = axes.transData.transform(label.get_position())
        label.set_position(axes.transData.inverted().transform((x + right, y + up)))
        return self.output
