# syntax=docker/dockerfile:1
# One image for sidecar, store, ledger and webhook: the entry point is `sidecar`, the command says which.
#   docker build -t customhouse:0.1.0 .
#   docker run --rm customhouse:0.1.0 --help
# Base images are pinned by exact version. Pin them by digest where you build (`docker buildx imagetools inspect`):
#   docker build --build-arg PYTHON=python:3.11.14-slim-bookworm@sha256:… .
ARG PYTHON=python:3.11.14-slim-bookworm
ARG RUST=rust:1.95.0-slim-bookworm

FROM ${RUST} AS rust

FROM ${PYTHON} AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/*
COPY --from=rust /usr/local/cargo /usr/local/cargo
COPY --from=rust /usr/local/rustup /usr/local/rustup
ENV PATH=/usr/local/cargo/bin:$PATH \
    CARGO_HOME=/usr/local/cargo \
    RUSTUP_HOME=/usr/local/rustup \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
WORKDIR /build
COPY docker/build.txt docker/requirements.txt docker/
RUN pip install --require-hashes --requirement docker/build.txt
RUN python -m venv --without-pip /opt/customhouse \
 && pip --python /opt/customhouse/bin/python install --require-hashes --only-binary :all: --requirement docker/requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY native native
COPY sidecar sidecar
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
 && pip --python /opt/customhouse/bin/python install --no-deps --no-index --find-links /wheels customhouse \
 && /opt/customhouse/bin/python -m compileall -q /opt/customhouse/lib

FROM ${PYTHON}
LABEL org.opencontainers.image.title="Customhouse" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --system --gid 65532 customhouse \
 && useradd --system --uid 65532 --gid 65532 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin customhouse \
 && install -d -m 0755 /etc/customhouse \
 && install -d -o customhouse -g customhouse -m 0750 /run/customhouse /var/lib/customhouse \
 && pip uninstall --yes --quiet pip setuptools wheel
COPY --from=build /opt/customhouse /opt/customhouse
COPY policies /usr/share/customhouse/policies
ENV PATH=/opt/customhouse/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PYTHONSAFEPATH=1
WORKDIR /var/lib/customhouse
USER 65532:65532
HEALTHCHECK NONE
STOPSIGNAL SIGTERM
ENTRYPOINT ["sidecar"]
CMD ["--help"]
