"""STLM beside what people would use instead: eight published methods, as anomalib has them.

All of them are trained on the same pictures, judged by the same metrics at the pictures' own resolution, and timed in
turns from the frame to the verdict. `python -m benchmarks.alternatives --help` says how.
"""
