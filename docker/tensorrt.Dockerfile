# On an NVIDIA GPU, by the TensorRT of NVIDIA's image, which brings its own Python package: docs/runtime.md, "Containers".
# The image is for x86-64 and for a Jetson Thor (JetPack 7, SBSA); an Orin with JetPack 6 takes the one for its GPU:
#   --build-arg IMAGE=nvcr.io/nvidia/tensorrt:25.04-py3-igpu --build-arg CUDA=12
ARG IMAGE=nvcr.io/nvidia/tensorrt:25.11-py3
FROM ${IMAGE}
ARG CUDA=13

# hadolint ignore=DL3008 # the image's Ubuntu decides
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --groups video --create-home stlm \
    && install --directory --owner stlm /models /data

WORKDIR /opt/stlm-edge
COPY . .
RUN python3 -m venv --system-site-packages /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --constraint constraints.txt '.[headless]' onnx tqdm \
    && /opt/venv/bin/pip install --no-cache-dir "cuda-bindings==${CUDA}.*"
ENV PATH=/opt/venv/bin:$PATH

USER 10001
WORKDIR /data
VOLUME ["/models", "/data"]
# Healthy is a line that wrote something within the last minute; a lost camera and a stuck GPU write nothing.
HEALTHCHECK --interval=30s --timeout=5s --start-period=5m \
    CMD ["sh", "-c", "test -n \"$(find /data/events.jsonl -mmin -1)\""]
ENTRYPOINT ["stlm"]
CMD ["camera", "--engine", "/models/stlm.plan", "--output", "/data/events.jsonl"]
