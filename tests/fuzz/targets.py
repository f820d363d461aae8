"""What can be handed over: valid files, which of them is damaged, and who reads it."""

from __future__ import annotations

import functools

from .data_files import (
    archive,
    compared,
    continued_log,
    continued_table,
    counted_shift,
    dagm_files,
    line_file,
    listed,
    log_file,
    mask_file,
    read_cameras,
    read_mask_file,
    read_roi,
    record_files,
    reported,
    roi_file,
    shift_file,
    table_files,
    unpacked,
    visa_files,
)
from .engine_files import (
    engine_files,
    graph_files,
    kernel_files,
    open_and_infer,
    read_graph_file,
    rehash_engine,
    report_plan,
)
from .mutations import of_bytes
from .review_files import kept_files, review_log, shown_of, state_by
from .target import Target, resealed
from .training_files import (
    GRID,
    checkpoint_files,
    feature_file,
    grid_files,
    header_altered,
    history_file,
    preset_file,
    read_checkpoint,
    read_preset,
    read_run,
    read_state,
    read_test_history,
    remembered,
    report_grid,
    run_files,
    state_file,
)

RECORDS = ("latency", "accuracy", "sizes", "peers", "demo", "gpu")

TARGETS: dict[str, Target] = {
    "sidecar-raw": Target(engine_files, "n.onnx.json", open_and_infer),
    "sidecar-resealed": Target(engine_files, "n.onnx.json", open_and_infer, alter=resealed),
    "engine": Target(engine_files, "n.onnx", open_and_infer, alter=of_bytes),
    "engine-rehashed": Target(engine_files, "n.onnx", open_and_infer, alter=of_bytes, finish=rehash_engine),
    "engine-rehashed, OpenVINO": Target(
        engine_files,
        "n.onnx",
        functools.partial(open_and_infer, backend="openvino"),
        alter=of_bytes,
        finish=rehash_engine,
    ),
    "graph": Target(graph_files, "n.onnx", read_graph_file, alter=of_bytes),
    "kernels": Target(kernel_files, "x.plan.kernels.json", report_plan),
    "kernels-resealed": Target(kernel_files, "x.plan.kernels.json", report_plan, alter=resealed),
    "checkpoint": Target(checkpoint_files, "m.safetensors", read_checkpoint, alter=of_bytes),
    "checkpoint-header": Target(checkpoint_files, "m.safetensors", read_checkpoint, alter=header_altered),
    "preset": Target(preset_file, "p.yaml", read_preset, alter=of_bytes),
    "line.yaml": Target(line_file, "line.yaml", read_cameras, alter=of_bytes),
    "run.json": Target(run_files, "run.json", read_run),
    "config.yaml": Target(run_files, "config.yaml", read_run, alter=of_bytes),
    "test-history.jsonl": Target(history_file, "test-history.jsonl", read_test_history, alter=of_bytes),
    "state.pt": Target(state_file, "state.pt", read_state, alter=of_bytes),
    "grid.json": Target(grid_files, f"{GRID}/grid.json", report_grid),
    "evaluation.json": Target(grid_files, f"{GRID}/evaluation.json", report_grid),
    "grid.json-resealed": Target(grid_files, f"{GRID}/grid.json", report_grid, alter=resealed),
    "evaluation.json-resealed": Target(grid_files, f"{GRID}/evaluation.json", report_grid, alter=resealed),
    "run.json of a grid": Target(grid_files, f"{GRID}/run.json", report_grid),
    "features": Target(feature_file, "t/key.features", remembered, alter=of_bytes),
    "visa": Target(visa_files, "split_csv/1cls.csv", listed, alter=of_bytes),
    "dagm": Target(dagm_files, "Class1/Train/Label/Labels.txt", listed, alter=of_bytes, is_mended=True),
    **{
        f"mask{suffix}": Target(functools.partial(mask_file, suffix), f"m{suffix}", read_mask_file, alter=of_bytes)
        for suffix in (".png", ".tif", ".bmp", ".jpg")
    },
    "roi": Target(roi_file, "r.json", read_roi),
    "tar": Target(functools.partial(archive, "w"), "a", unpacked, alter=of_bytes),
    "tar.gz": Target(functools.partial(archive, "w:gz"), "a", unpacked, alter=of_bytes),
    "tar.xz": Target(functools.partial(archive, "w:xz"), "a", unpacked, alter=of_bytes),
    "zip": Target(functools.partial(archive, "zip"), "a", unpacked, alter=of_bytes),
    "scores.csv": Target(table_files, "scores.csv", continued_table, alter=of_bytes),
    "batch run.json": Target(table_files, "run.json", continued_table),
    "events.jsonl of a shift": Target(shift_file, "e.jsonl", counted_shift, alter=of_bytes, is_mended=True),
    "events.jsonl": Target(log_file, "e.jsonl", continued_log, alter=of_bytes, is_mended=True),
    **{f"report {name}": Target(functools.partial(record_files, name), "a.json", reported) for name in RECORDS},
    "kept JSON": Target(kept_files, "20261125T225000.123456Z-000000-9f1c2ab0.json", shown_of, is_mended=True),
    "kept map": Target(kept_files, "m.map", shown_of, alter=of_bytes, is_mended=True),
    "review.jsonl": Target(review_log, "review.jsonl", state_by, alter=of_bytes),
    "compare": Target(functools.partial(record_files, "latency"), "a.json", compared),
}
