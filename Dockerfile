# The service with everything it needs; without any setting but CHATBACK_ENVIRONMENT=development it serves by itself.
# docs/container.md tells how to run it.

# Any Debian with Python 3.11 or newer and CA certificates will do, such as one that trusts your own authority.
ARG BASE=python:3.11-slim-bookworm


FROM ${BASE} AS packages

COPY requirements/uv.txt /requirements/
RUN python -m venv /uv && /uv/bin/python -m pip install -q --no-cache-dir --require-hashes -r /requirements/uv.txt

COPY requirements/runtime.txt /requirements/
# Wheels only, so that no compiler is needed; their bytecode is taken as it is, since nothing here changes later.
ENV PYC_INVALIDATION_MODE=UNCHECKED_HASH UV_SYSTEM_CERTS=1
RUN python -m venv --without-pip /opt/chatback \
 && /uv/bin/uv --no-config pip install -q --no-cache --no-build --require-hashes --compile-bytecode \
    --python /opt/chatback/bin/python -r /requirements/runtime.txt \
 && rm -f /opt/chatback/.lock


FROM ${BASE} AS code

COPY . /app
RUN rm -r /app/requirements \
 && chmod -R u=rwX,go=rX /app \
 && python -m compileall -q --invalidation-mode unchecked-hash /app


FROM ${BASE}

LABEL org.opencontainers.image.title="ChatBack" \
      org.opencontainers.image.description="A self-hosted chat backend over gRPC"

# As process 1, Python would not hear a SIGTERM that comes before it listens for one.
RUN apt-get update -q \
 && apt-get install -y -q --no-install-recommends tini \
 && apt-get clean \
 && rm -rf /var/lib/apt/lists/*
# The embedded PostgreSQL runs only as a user that has a name.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /data --shell /usr/sbin/nologin chatback \
 && install --directory --mode=0700 --owner=chatback --group=chatback /data
COPY --from=packages /opt/chatback /opt/chatback
COPY --from=code /app /app

WORKDIR /app
ENV PATH=/opt/chatback/bin:$PATH PYTHONPATH=/app:/app/proto
# Fails if something is missing, and leaves the standard library's bytecode, which Python's own images lack.
RUN python -c "import alembic.command, sqlalchemy.ext.asyncio, uvloop, entrypoints.cli, entrypoints.server" \
 && test -s /etc/ssl/certs/ca-certificates.crt
# The drain ends before `docker stop` loses its patience, which is after 10 s.
ENV PYTHONDONTWRITEBYTECODE=1 \
    CHATBACK_DATA_DIR=/data \
    CHATBACK_GRPC_HOST=0.0.0.0 \
    CHATBACK_REST_HOST=0.0.0.0 \
    CHATBACK_DRAIN_SECONDS=5

USER 10001:10001
VOLUME /data
EXPOSE 50051 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-m", "entrypoints.cli", "health"]
ENTRYPOINT ["tini", "--", "python", "-m", "entrypoints.cli"]
CMD ["api"]
