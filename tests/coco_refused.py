"""Departures from COCO's format that no one can mend, and what the message names."""

import numpy as np
from coco_kinds import (
    HEIGHT,
    WIDTH,
    Change,
    category,
    each,
    exif,
    image,
    one,
    points_of,
    rewrite,
    rle_in_rows,
    second,
    to_rle,
)
from PIL import Image

REFUSED: dict[str, tuple[Change, str]] = {
    "image that is not there": (one(image_id=999), r"image_id is not in the file .*annotation 4 .*999"),
    "image_id null": (one(image_id=None), r"image_id is not in the file .*annotation 4 has image_id None"),
    "image_id list": (one(image_id=[1]), r"image_id is not in the file .*annotation 4 has image_id \[1\]"),
    "category that is not there": (one(category_id=7), "category_id is not in the file .*annotation 4"),
    "image ids missing": (image(id=...), r"Images without an id .*4\.png"),
    "image id of two": (image(id=1), "Ids that several images have .*1"),
    "category id of two": (second({"id": 1, "name": "cat"}), "Ids that several categories have"),
    "keypoints by name": (each(keypoints={"beak": 1}), "keypoints that are not"),
    "category names twice": (second({"id": 2, "name": "bird"}), "Names that several categories have .*bird"),
    "no name": (category(name=...), "categories without a name"),
    "no file name": (image(file_name=...), "images without a file_name"),
    "all crowd": (each(iscrowd=1), "Every object is a crowd .*iscrowd to 0"),
    "ignore maybe": (one(ignore="maybe"), r"ignore that is not .*annotation 4 of 4\.png: 'maybe'"),
    "iscrowd 2": (one(iscrowd=2), r"iscrowd .*annotation 4 of 4\.png: 2"),
    "bbox x0 y0 x1 y1": (
        each(bbox=lambda o: [*o["bbox"][:2], o["bbox"][0] + 36, o["bbox"][1] + 22]),
        "look like x0, y0, x1, y1",
    ),
    "bbox fractions": (each(bbox=lambda o: [side / 96 for side in o["bbox"]]), "look like fractions"),
    "bbox y, x, height, width": (
        each(bbox=lambda o: [o["bbox"][k] for k in (1, 0, 3, 2)]),
        "Boxes and mask of an object are in different places, . of 6",
    ),
    "bbox of the middle": (
        each(bbox=lambda o: [o["bbox"][0] + 18, o["bbox"][1] + 11, *o["bbox"][2:]]),
        "Boxes and mask of an object are in different places, 6 of 6",
    ),
    "bbox of the image": (each(bbox=[0, 0, WIDTH, HEIGHT]), "Boxes and mask .* different places, 6 of 6"),
    "bbox x0 y0 x1 y1, at the top left": (
        each(bbox=[2, 3, 12, 11], segmentation=[[2, 3, 12, 3, 12, 11, 2, 11]], keypoints=None),
        "Boxes and mask .* different places, 6 of 6",
    ),
    "bbox outside": (one(bbox=[150, 10, 20, 20], segmentation=...), r"Boxes outside their .*\[150, 10"),
    "bbox at the left": (one(bbox=[-40, 10, 20, 20], segmentation=...), r"Boxes outside .*\[-40, 10"),
    "polygons of fractions": (
        each(segmentation=lambda o: [[value / 96 for value in o["segmentation"][0]]]),
        "Boxes and mask .* different places, 6 of 6",
    ),
    "rle in rows": (each(segmentation=rle_in_rows), "Boxes and mask .* different places, . of 6"),
    "keypoints of fractions": (
        each(keypoints=lambda o: [v if k % 3 == 2 else v / 96 for k, v in enumerate(o["keypoints"])]),
        "Boxes and keypoints of an object are in different places, 6 of 6",
    ),
    "keypoints y, x": (
        each(keypoints=lambda o: [o["keypoints"][k] for k in (1, 0, 2, 4, 3, 5, 7, 6, 8)]),
        "Boxes and keypoints .* different places, . of 6",
    ),
    "keypoints without visibility": (
        lambda c, _: (category(keypoints=...)(c, _), each(keypoints=[30, 40, 50, 60, 40, 30])(c, _)),
        "keypoints whose third number is above 2",
    ),
    "keypoints without visibility, where a box is to come of them": (
        each(keypoints=[30, 40] * 5, bbox=[0, 0, 0, 0], segmentation=[]),
        "keypoints that are not 3 finite numbers .* bbox that is no box",
    ),
    "bbox of keypoints that are hidden": (
        one(keypoints=[30, 40, -1] * 3, bbox=..., segmentation=...),
        "bbox that is no box",
    ),
    "bbox of dots": (one(bbox="10.20.30.40.50", segmentation=..., keypoints=...), "bbox that is no box"),
    "bbox that nothing gives": (
        one(bbox=[1, 2, 3, -4], segmentation=..., keypoints=...),
        r"bbox that is no box.*annotation 4 of 4\.png: \[1, 2, 3, -4\]",
    ),
    "bbox nan": (
        one(bbox=[1, 2, 3, float("nan")], segmentation=..., keypoints=...),
        "bbox that is no box.*nan",
    ),
    "polygon of an odd count": (one(segmentation=[[1, 2, 3, 4, 5, 6, 7]]), "segmentation that is neither"),
    "polygon of text": (one(segmentation=[["a"] * 6]), r"segmentation .*annotation 4 of 4\.png"),
    "polygon of x and y by name": (
        each(segmentation=lambda o: [[{"x": x, "y": y} for x, y in points_of(o)]]),
        "segmentation that is neither .*annotation 1",
    ),
    "polygons of GeoJSON": (each(segmentation=lambda o: [[points_of(o)]]), "segmentation that is neither"),
    "polygon of three dimensions": (
        each(segmentation=lambda o: [[[*point, 0] for point in points_of(o)]]),
        "segmentation that is neither",
    ),
    "polygon of points as text": (one(segmentation=[["51,32", "60,40", "50,50"]]), "that is neither"),
    "polygon with another part": (
        one(segmentation=lambda o: [*o["segmentation"], [{"x": 1, "y": 2}]]),
        r"segmentation that is neither .*annotation 4 of 4\.png",
    ),
    "polygon without its decimal points": (
        one(segmentation=lambda o: [[*o["segmentation"][0][:-1], 1e9]]),
        r"Polygons beyond 10 times the size .*annotation 4 of 4\.png",
    ),
    "polygon of nan": (one(segmentation=[[float("nan")] * 6]), "segmentation that is neither"),
    "rle of another size": (
        one(segmentation={"size": [WIDTH, HEIGHT], "counts": [WIDTH * HEIGHT]}),
        r"RLE\) of another size.*annotation 4 of 4\.png: \[96, 80\]",
    ),
    "rle that does not fit": (
        one(segmentation={"size": [HEIGHT, WIDTH], "counts": [5, 5]}),
        "counts do not fill",
    ),
    "rle in a list": (
        one(segmentation={"size": [HEIGHT, WIDTH], "counts": [[400, 300, 6980]]}),
        "counts do not fill",
    ),
    "rle cut off": (
        one(segmentation=lambda o: {**to_rle(o), "counts": to_rle(o)["counts"][:-2]}),
        "counts do not fill",
    ),
    "keypoints of two numbers, without names": (
        lambda c, _: (category(keypoints=...)(c, _), each(keypoints=[30, 40])(c, _)),
        "keypoints that are not numbers",
    ),
    "keypoints of another count": (one(keypoints=[1, 2, 2]), "keypoints that are not 3 finite numbers"),
    "keypoints nan": (one(keypoints=[float("nan")] * 9), "keypoints that are not 3 finite numbers"),
    "keypoint names twice": (category(keypoints=["a", "a", "b"]), "not names, each once"),
    "keypoints by category": (
        second({"id": 2, "name": "cat", "keypoints": ["nose", "tail", "ear"]}),
        "Categories with other keypoints",
    ),
    "sigmas": (category(sigmas=[0.1]), "sigmas that do not fit .*Give 3"),
    "skeleton": (category(skeleton=[[1, 9]]), "skeleton with numbers that no keypoint has"),
    "flip_pairs": (category(flip_pairs=[["beak"]]), "flip_pairs that are not pairs"),
    "flip_pairs twice": (
        category(flip_pairs=[["beak", "left_wing"], ["beak", "right_wing"]]),
        "flip_pairs that are not pairs",
    ),
    "file missing": (lambda _, folder: (folder / "4.png").unlink(), r"file is not there .*4\.png"),
    "file empty": (lambda _, folder: (folder / "4.png").write_bytes(b""), r"cannot be read, .*4\.png"),
    "frames of one file": (
        lambda c, _: c["images"].append({**c["images"][3], "id": 77, "frame": 2}),
        r"Files that different images name \(1: 4\.png\)",
    ),
    "16 bits": (
        rewrite(lambda picture: Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 9)),
        r"Images of 16 bits.*4\.png",
    ),
    "exif rotated": (rewrite(lambda picture: picture, ".jpg", exif=exif(6)), r"EXIF orientation.*4\.jpg"),
    "another size": (image(height=96, width=80), r"another size than the file .*4\.png has 96 x 80"),
    "no size and no image": (
        lambda c, folder: ((folder / "4.png").write_text("x"), c["images"][3].pop("width")),
        r"without a size whose file cannot be read .*4\.png",
    ),
    "objects that are none": (lambda c, _: c["annotations"].append(5), "not JSON objects .*5"),
}
