# syntax=docker/dockerfile:1
# One file, two images. CUDA (the default; the locked wheels bring their own CUDA libraries, the host its driver):
#     docker build -t resnetd .
# CPU only, from PyTorch's index of CPU wheels, as its installation page gives it. That build of torch has other hashes,
# so it is taken by version; everything else stays locked by hash:
#     docker build -t resnetd:cpu --build-arg VARIANT=cpu --build-arg CPU_PIP_OPTIONS="--index-url <index of CPU wheels>" .
# Compose takes both arguments from .env; the head of docker-compose.yml says how.

ARG PYTHON=3.12
ARG VARIANT=cuda

FROM python:${PYTHON}-slim AS locked
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
RUN python -m venv /opt/resnetd
ENV PATH=/opt/resnetd/bin:$PATH
WORKDIR /src
COPY deploy/requirements.txt ./

FROM locked AS install-cuda
RUN pip install --require-hashes -r requirements.txt

FROM locked AS install-cpu
ARG CPU_PIP_OPTIONS=""
COPY deploy/without_cuda.py ./
RUN if [ -z "${CPU_PIP_OPTIONS}" ]; then \
      echo "VARIANT=cpu needs CPU_PIP_OPTIONS: --index-url and PyTorch's index of CPU wheels." >&2; \
      exit 1; \
    fi
RUN python without_cuda.py requirements.txt rest.txt torch.txt \
 && pip install ${CPU_PIP_OPTIONS} --no-deps -r torch.txt \
 && pip install --require-hashes --no-deps -r rest.txt

FROM install-${VARIANT} AS build
COPY pyproject.toml README.md ./
COPY app app
COPY jobs jobs
COPY models models
COPY resnetd resnetd
COPY store store
COPY worker worker
RUN pip install --no-deps --no-build-isolation . && pip check

FROM python:${PYTHON}-slim
RUN groupadd --gid 10001 resnetd \
 && useradd --uid 10001 --gid resnetd --home-dir /var/lib/resnetd --create-home --shell /usr/sbin/nologin resnetd
COPY --from=build /opt/resnetd /opt/resnetd
ENV PATH=/opt/resnetd/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    RESNETD_DATA=/var/lib/resnetd
USER resnetd
WORKDIR /var/lib/resnetd
VOLUME /var/lib/resnetd
EXPOSE 8000
STOPSIGNAL SIGTERM
ENTRYPOINT ["resnetd"]
CMD ["--help"]
