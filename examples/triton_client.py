"""Ask Triton Inference Server about a picture, with neither torch nor this package on the client.

    stlm export model.safetensors -o part.onnx --frame-size 480x640
    stlm triton part.onnx -o repository/
    tritonserver --model-repository=repository/
    pip install 'tritonclient[http]' opencv-python-headless
    python triton_client.py part.png --url localhost:8000

The picture must have the size that the graph takes: with --frame-size that of the camera.
"""

from __future__ import annotations

import argparse
import json
import math
import sys

import cv2
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException


def main() -> int:
    parser = argparse.ArgumentParser(description="Ask Triton Inference Server about a picture.")
    parser.add_argument("picture")
    parser.add_argument("--url", default="localhost:8000")
    parser.add_argument("--model", default="stlm")
    options = parser.parse_args()
    try:
        return ask(options.url, options.model, options.picture)
    except (InferenceServerException, OSError) as error:
        print(f"error: {options.url} does not answer: {error}", file=sys.stderr)
        return 1


def ask(url: str, model: str, picture: str) -> int:
    client = triton.InferenceServerClient(url)
    parameters = client.get_model_config(model)["parameters"]
    spec = json.loads(parameters["stlm_edge.spec"]["string_value"])
    height, width = spec["frame_size"] or spec["input_size"]
    frame = cv2.imread(picture)  # (H, W, 3) uint8, BGR
    if frame is None or frame.shape[:2] != (height, width):
        found = "no picture" if frame is None else f"{frame.shape[0]} x {frame.shape[1]} pixels"
        print(f"error: {picture} is {found}, expected {height} x {width}", file=sys.stderr)
        return 1
    image = triton.InferInput("image", [1, height, width, 3], "UINT8")
    image.set_data_from_numpy(frame[None])
    answer = client.infer(model, [image])
    score = answer.as_numpy("score").item()  # and "anomaly_map", (1, h, w) float32
    if not math.isfinite(score):
        print(f"error: {picture} has no score, so it is not good either", file=sys.stderr)
        return 1
    print(score, score >= spec["threshold"]["value"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
