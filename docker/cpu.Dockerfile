# On a processor, by OpenVINO: docs/runtime.md, "Containers".
FROM python:3.12-slim-bookworm

RUN useradd --uid 10001 --groups video --create-home stlm \
    && install --directory --owner stlm /models /data

WORKDIR /opt/stlm-edge
COPY . .
RUN python -m pip install --no-cache-dir --constraint constraints.txt '.[headless]' openvino

USER 10001
WORKDIR /data
VOLUME ["/models", "/data"]
# Healthy is a line that wrote something within the last minute; a lost camera and a stuck network write nothing.
HEALTHCHECK --interval=30s --timeout=5s --start-period=5m \
    CMD ["sh", "-c", "test -n \"$(find /data/events.jsonl -mmin -1)\""]
ENTRYPOINT ["stlm"]
CMD ["camera", "--engine", "/models/stlm.xml", "--output", "/data/events.jsonl"]
