# Services beside the gateway: `lb` (HAProxy), `locust`, and `prometheus` for hosts that cannot pull its image.
#
#   docker build -f deploy/docker/tools.Dockerfile --target locust .
#
# A CA bundle: --secret id=ca,src=BUNDLE.
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS base
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp app

FROM base AS lb
RUN apt-get update && apt-get install -y --no-install-recommends haproxy \
    && rm -rf /var/lib/apt/lists/* /var/log/* /var/cache/*
COPY --chmod=644 deploy/haproxy/haproxy.cfg /etc/haproxy/haproxy.cfg
ENV LB_TIMEOUT=70s
USER 10001
EXPOSE 8080 8405
# Ends once the requests under way are answered.
STOPSIGNAL SIGUSR1
HEALTHCHECK --interval=3s --timeout=2s --start-period=30s --retries=3 CMD ["bash", "-c", \
    "exec 3<>/dev/tcp/127.0.0.1/8405 && printf 'GET /ready HTTP/1.0\\r\\n\\r\\n' >&3 && head -1 <&3 | grep -q ' 200 '"]
CMD ["haproxy", "-db", "-f", "/etc/haproxy/haproxy.cfg"]
LABEL org.opencontainers.image.title="Load balancer of the gateways" \
      org.opencontainers.image.description="HAProxy that finds the gateways by DNS" \
      org.opencontainers.image.licenses="GPL-2.0-or-later"

FROM base AS prometheus
RUN apt-get update && apt-get install -y --no-install-recommends prometheus \
    && rm -rf /var/lib/apt/lists/* /var/log/* /var/cache/* && install -d -o nobody -g nogroup /prometheus
# User and paths of the official image, so that volumes fit both.
USER nobody
EXPOSE 9090
ENTRYPOINT ["prometheus"]
CMD ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]
LABEL org.opencontainers.image.title="Prometheus from Debian" org.opencontainers.image.licenses="Apache-2.0"

FROM base AS python
RUN apt-get update && apt-get install -y --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/* /var/log/* /var/cache/*

FROM python AS locust-build
RUN apt-get update && apt-get install -y --no-install-recommends python3-pip python3-venv ca-certificates \
    && rm -rf /var/lib/apt/lists/*
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt PIP_NO_CACHE_DIR=1
WORKDIR /src
COPY requirements/locust.txt requirements/
RUN --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt \
    python3 -m venv --without-pip /opt/locust \
    && python3 -m pip --quiet --python /opt/locust/bin/python install --require-hashes -r requirements/locust.txt
COPY preprocessors/contract preprocessors/contract
RUN --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt \
    python3 -m pip --quiet --python /opt/locust/bin/python install --no-deps ./preprocessors/contract
# What the users ask, and what is right: the golden cases of preprocessors and model versions.
COPY gateway /app/gateway
COPY loadtests /app/loadtests
COPY preprocessors /all/preprocessors
COPY model_repository /all/model_repository
RUN cd /all && find . -name goldens.json -exec cp --parents {} /app \;

FROM python AS locust
COPY --from=locust-build /opt/locust /opt/locust
COPY --from=locust-build /app /app
ENV PATH=/opt/locust/bin:$PATH HOME=/tmp PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
USER 10001
EXPOSE 8089
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8089"]
CMD ["locust", "-f", "loadtests/locustfile.py", "--host", "http://lb:8080"]
LABEL org.opencontainers.image.title="Load generator" \
      org.opencontainers.image.description="Locust with users that judge every answer" \
      org.opencontainers.image.licenses="Apache-2.0"
