# gatewayd for x86_64 and aarch64 (Raspberry Pi 4 and 5 with a 64-bit system, Jetson): docker build -t gatewayd .
#
#   docker run --read-only --tmpfs /tmp --network host -v gatewayd:/var/lib/gatewayd \
#       -v ./gatewayd.yaml:/etc/gatewayd/gatewayd.yaml:ro gatewayd
#
# Without `--network host`, the config must name the broker's host and let http and coap listen on 0.0.0.0: http then with
# tls and tokens_file, or with `insecure: true` and the port published on loopback only (`-p 127.0.0.1:8080:8080`).
#
# 32-bit ARM is not built here: its engine, tflite-runtime, has no wheel for this Python.

FROM python:3.13-slim AS build
WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/gatewayd
COPY requirements/base.txt requirements/engine.txt requirements/build.txt requirements/
RUN /opt/gatewayd/bin/pip install --require-hashes -r requirements/base.txt -r requirements/engine.txt
# What builds the package does not travel.
RUN python -m pip install --require-hashes -r requirements/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY config config
COPY gatewayd gatewayd
RUN python -m pip wheel --no-deps --no-build-isolation --wheel-dir /tmp/wheel . \
    && /opt/gatewayd/bin/pip install --no-deps /tmp/wheel/*.whl

FROM python:3.13-slim
# The user's number is fixed, so that a volume keeps its owner over new images.
RUN useradd --system --uid 10777 --home-dir /var/lib/gatewayd --create-home gatewayd
COPY --from=build /opt/gatewayd /opt/gatewayd
COPY config/gatewayd.yaml /etc/gatewayd/gatewayd.yaml
ENV PATH=/opt/gatewayd/bin:$PATH PYTHONUNBUFFERED=1
USER gatewayd
VOLUME /var/lib/gatewayd
EXPOSE 8080/tcp 5683/udp
STOPSIGNAL SIGTERM
# Port 8080, or what the config says: set GATEWAYD_HEALTH_URL then.
ENV GATEWAYD_HEALTH_URL=http://127.0.0.1:8080/healthz
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(os.environ['GATEWAYD_HEALTH_URL'], timeout=4)"]
ENTRYPOINT ["gatewayd"]
CMD ["run", "--config", "/etc/gatewayd/gatewayd.yaml"]
