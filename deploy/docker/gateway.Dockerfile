# The gateway with the environments of every release that this repository locks: it starts without a network.
#
#   docker build -f deploy/docker/gateway.Dockerfile .
#   docker build -f deploy/docker/gateway.Dockerfile --target bare .     # without environments
#
# A CA bundle: --secret id=ca,src=BUNDLE.
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS python
RUN apt-get update && apt-get install -y --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/* /var/log/* /var/cache/* \
    && useradd --uid 10001 --user-group --no-create-home --home-dir /tmp app

FROM python AS build
RUN apt-get update && apt-get install -y --no-install-recommends python3-pip python3-venv ca-certificates \
    && rm -rf /var/lib/apt/lists/*
# uv would not trust the system's certificates otherwise.
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1 UV_LINK_MODE=copy
WORKDIR /src
COPY requirements/serve.txt requirements/
RUN --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt \
    python3 -m venv --without-pip /opt/gateway \
    && python3 -m pip --quiet --python /opt/gateway/bin/python install --require-hashes -r requirements/serve.txt
# The packages as wheels, so that the image has what an installation has.
COPY pyproject.toml README.md ./
COPY preprocessors/contract preprocessors/contract
COPY gateway gateway
RUN --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt \
    /opt/gateway/bin/uv build --quiet --wheel --out-dir /wheels . \
    && /opt/gateway/bin/uv build --quiet --wheel --out-dir /wheels preprocessors/contract \
    && /opt/gateway/bin/uv pip install --python /opt/gateway/bin/python --no-deps --compile-bytecode /wheels/*.whl \
    && find /opt/gateway -name tests -path '*/numpy/*' -prune -exec rm -rf {} +

# Locks alone, so that other changes of the repository build no environment anew.
FROM ${BASE} AS locks
COPY model_repository /all
RUN mkdir /locks && cd /all && cp --parents */releases.lock /locks

FROM build AS environments
COPY preprocessors preprocessors
COPY --from=locks /locks /locks
RUN --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt \
    /opt/gateway/bin/gateway wheels --repository /locks --wheelhouse /wheelhouse \
    && /opt/gateway/bin/gateway environments build --repository /locks --wheelhouse /wheelhouse \
       --environments /opt/environments \
    # A file that several environments hold is stored once: nothing edits them in an image.
    && hardlink --quiet --ignore-time /opt/environments

FROM python AS bare
RUN install -d -o app -g app /models /var/lib/gateway /var/lib/gateway/environments /wheelhouse
COPY --from=build /opt/gateway /opt/gateway
ENV PATH=/opt/gateway/bin:$PATH HOME=/tmp \
    GATEWAY_HOST=0.0.0.0 \
    GATEWAY_PORT=8080 \
    GATEWAY_REPOSITORY=/models \
    GATEWAY_WHEELHOUSE=/wheelhouse \
    GATEWAY_ENVIRONMENTS=/var/lib/gateway/environments \
    GATEWAY_STATE_DIR=/var/lib/gateway \
    GATEWAY_RUN_DIR=/run/gateway \
    GATEWAY_LOG_STREAM=stdout \
    UV_CACHE_DIR=/var/lib/gateway/uv-cache \
    GATEWAY_OFFLINE=true
USER 10001
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=3s --timeout=3s --start-period=120s --retries=3 CMD ["bash", "-c", \
    "exec 3<>/dev/tcp/127.0.0.1/${GATEWAY_PORT} && printf 'GET /readyz HTTP/1.0\\r\\n\\r\\n' >&3 && head -1 <&3 | grep -q ' 200 '"]
CMD ["gateway", "serve"]
LABEL org.opencontainers.image.title="Triton release gateway" \
      org.opencontainers.image.description="A Tornado gateway in front of NVIDIA Triton Inference Server" \
      org.opencontainers.image.licenses="Apache-2.0"

FROM bare AS gateway
COPY --from=environments /opt/environments /opt/environments
ENV GATEWAY_PREBUILT_ENVIRONMENTS=/opt/environments
