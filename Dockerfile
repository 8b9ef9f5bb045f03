# The image for services: docs/image.md.
#
#   docker build --target light --tag c2c-otel:0.1.0-light .
#   docker build --target full --tag c2c-otel:0.1.0 .

# The Debian, and with it the Python, that the tests run on. To pin it to the byte:
# --build-arg BASE=debian:bookworm-slim@sha256:...
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS base
ENV LANG=C.UTF-8 \
    PATH=/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
# A stable Debian only gets fixes, so its packages are not pinned: a rebuild is meant to have them.
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends ca-certificates python3 \
    && rm -rf /var/lib/apt/lists/*


FROM base AS build
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY constraints.txt ./
RUN /usr/bin/python3 -m venv /venv \
    && /venv/bin/python -m pip install --no-cache-dir --constraint constraints.txt pip
COPY pyproject.toml README.md LICENSE ./
COPY c2c_otel c2c_otel
COPY exporters exporters
COPY views views
# psycopg2, too: URLs and except clauses of applications that had c2cwsgiutils name it
RUN /venv/bin/python -m pip install --no-cache-dir --constraint constraints.txt \
    ".[alembic,gunicorn,otlp,postgresql,profiler,requests]" psycopg2-binary


FROM base AS light
LABEL org.opencontainers.image.title="c2c-otel" \
      org.opencontainers.image.description="OpenTelemetry-native observability for Pyramid services under gunicorn" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="BSD-2-Clause"
RUN groupadd --gid 10001 c2c \
    && useradd --uid 10001 --gid 10001 --create-home --shell /usr/sbin/nologin c2c
COPY --from=build /venv /venv
WORKDIR /app
# What an ini file refers to as %(NAME)s. No secret: without C2C_SECRET the protected views do not exist.
ENV PYTHONUNBUFFERED=1 \
    C2CWSGIUTILS_CONFIG=/app/production.ini \
    C2C_BASE_PATH=/c2c \
    C2C_REDIS_OPTIONS=socket_timeout=3 \
    GUNICORN_LOG_LEVEL=WARN \
    GUNICORN_PARAMS="-b :8080 --worker-class gthread --threads 10 --workers 5 --max-requests 1000 --max-requests-jitter 50" \
    LOG_HOST=localhost \
    LOG_LEVEL=INFO \
    LOG_PORT=514 \
    LOG_TYPE=console \
    OTHER_LOG_LEVEL=WARN \
    SQL_LOG_LEVEL=WARN
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s --retries=3 CMD ["c2c-otel", "alive"]
# by number, so that Kubernetes can see that it is not root
USER 10001
CMD ["c2c-otel-run"]


FROM light AS full
USER 0
# hadolint ignore=DL3008
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
        build-essential gdal-bin git libgdal-dev libpq-dev pkg-config python3-dev python3-gdal python3-venv \
    && rm -rf /var/lib/apt/lists/*
# Debian's osgeo is for Debian's libgdal: the environment sees it. What pip installs comes first.
RUN /usr/bin/python3 -m venv --system-site-packages --without-pip /venv
USER 10001
