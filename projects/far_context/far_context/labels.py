"""What the color of a disc means, in pictures of all kinds."""

CATEGORIES = ("front", "back")
COLORS = {"front": (40, 40, 220), "back": (220, 70, 40)}  # BGR
SWAPPED = [0, *(i + 1 if i % 2 else i - 1 for i in range(1, 17))]  # COCO's order is nose, left, right, ...


def opposite(category: str) -> str:
    return CATEGORIES[1 - CATEGORIES.index(category)]
