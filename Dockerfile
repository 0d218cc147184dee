# storygen with its models: docker compose up, or
#   docker build -t storygen . && docker run --init -p 127.0.0.1:8000:8000 -v stories:/data \
#     -e STORYGEN_ALLOW_EXPOSED=true storygen
# One command inside instead of the page: docker run storygen storygen models
#
# torch comes as its CPU build, a wheel of 190 MB. For an NVIDIA card, gigabytes: --build-arg
# PIP_EXTRA_INDEX_URL= and docker run --gpus all. scripts/build-image.sh builds the same without a
# Docker engine, and from local directories of wheels where pip is told of them.

FROM docker.io/library/python:3.11-slim-bookworm AS build

# pip reads these from its environment.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
ARG PIP_FIND_LINKS
ARG PIP_CERT
ARG PIP_NO_CACHE_DIR=1
ARG PIP_DISABLE_PIP_VERSION_CHECK=1

COPY requirements.txt .
RUN python3 -m venv --without-pip /opt/venv \
    && python3 -m pip --python /opt/venv/bin/python install --no-compile -r requirements.txt

# Without what is there to build upon the packages, to test or to debug them: a third of their size.
RUN apt-get update && apt-get install --yes --no-install-recommends binutils
RUN cd /opt/venv/lib/python3*/site-packages \
    && rm -rf torch/include torch/share torch/test torch/bin/*[tT]est* torch/bin/protoc* \
    && strip --strip-unneeded torch/lib/libtorch_cpu.so torch/lib/libtorch_python.so \
    && find . -type d -name tests -prune -exec rm -rf {} + \
    && find . -name '*.map' -delete

# Compiled here, for the file system may be read-only later, but for what no page imports; native code
# for every kind of processor. Readable whatever the umask of the checkout.
COPY . /app
RUN rm /app/requirements.txt \
    && apt-get install --yes --no-install-recommends clang libc6-dev \
    && cd /app && /opt/venv/bin/python -m storygen.decode.build \
    && chmod -R a+rX /app \
    && /opt/venv/bin/python -m compileall -q --invalidation-mode unchecked-hash \
        -x '/(fontTools|matplotlib|networkx|sympy)/|/torch/(_inductor|testing)/' /opt/venv/lib /app

FROM docker.io/library/python:3.11-slim-bookworm

RUN useradd --uid 10001 --user-group --no-create-home --home-dir /data storygen \
    && install --directory --owner=10001 --group=10001 /data
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app

# Whether being reachable from outside the container is meant is for the one who runs it to say,
# with STORYGEN_ALLOW_EXPOSED.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    STORYGEN_DATA_DIR=/data \
    STORYGEN_HOST=0.0.0.0 \
    STORYGEN_PORT=8000

WORKDIR /app
USER 10001:10001
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD ["python", "-c", "\
import os, urllib.request as web; \
local = web.build_opener(web.ProxyHandler({})); \
local.open('http://127.0.0.1:' + os.environ['STORYGEN_PORT'] + '/health', timeout=4)"]

ENTRYPOINT ["python", "-m"]
CMD ["storygen.launch"]
