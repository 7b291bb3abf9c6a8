"""Draw what a file of `tools/export.py --format onnx` detects in an image.
It needs NumPy, OpenCV and onnxruntime.

    python examples/run_onnx.py model.onnx IMAGE.jpg drawn.png
"""

import json
from argparse import ArgumentParser

import cv2
import numpy as np
import onnxruntime

parser = ArgumentParser(description="Draw what an ONNX file detects in an image.")
for name in ("model", "image", "drawn"):
    parser.add_argument(name)
args = parser.parse_args()
session = onnxruntime.InferenceSession(args.model, providers=["CPUExecutionProvider"])
config = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}

image = cv2.imread(args.image)  # (H, W, 3) of uint8, BGR
height, width = image.shape[:2]
shortest, longest = config["INPUT.MIN_SIZE_TEST"], config["INPUT.MAX_SIZE_TEST"]
scale = min(shortest / min(height, width), longest / max(height, width)) or 1.0  # 0: images as they are
size = (int(width * scale + 0.5), int(height * scale + 0.5))
pixels = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
pixels = pixels[:, :, ::-1] if config["INPUT.FORMAT"] == "RGB" else pixels
inputs = {"image": np.float32(pixels).transpose(2, 0, 1), "score_threshold": np.array(0.5, np.float32)}
names = [output.name for output in session.get_outputs()]
found = dict(zip(names, session.run(names, inputs), strict=True))

ratio = np.array([width, height]) / size  # from pixels of the resized image to those of the image
for k, label in enumerate(found["pred_classes"]):
    color = cv2.applyColorMap(np.uint8([[k * 67 % 256]]), cv2.COLORMAP_HSV)[0, 0].tolist()
    start, end = found["pred_boxes"][k].reshape(2, 2) * ratio
    if "pred_masks" in found:
        mask = found["pred_masks"][k, 0]  # (28, 28), probabilities within the box
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        factor = len(mask) / (end - start)
        to_mask = np.column_stack([np.diag(factor), (0.5 - start) * factor - 0.5])
        inside = cv2.warpAffine(mask, to_mask, (width, height), flags=flags) >= 0.5
        image[inside] = image[inside] / 2 + np.array(color) / 2
    for point in found["pred_keypoints"][k, :, :2] if "pred_keypoints" in found else ():
        cv2.circle(image, np.int32(point * ratio).tolist(), 3, color, -1)
    (x, y), corner = np.int32(start).tolist(), np.int32(end).tolist()
    cv2.rectangle(image, (x, y), corner, color)
    text = f"{config['thing_classes'][label]} {found['scores'][k]:.2f}"
    cv2.putText(image, text, (x + 2, y + 12), cv2.FONT_HERSHEY_SIMPLEX, 0.45, color)
cv2.imwrite(args.drawn, image)
