# personsearch in a container, for a CPU or a GPU: see docs/machines.md.
#   docker build --build-arg TORCH_INDEX=INDEX -t personsearch:cpu .
#   docker build -t personsearch:gpu .
ARG PYTHON=3.13
FROM python:${PYTHON}-slim AS build
ARG TORCH_INDEX=
WORKDIR /source
RUN python -m venv /opt/personsearch
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY configs configs
COPY benchmarks benchmarks
COPY data_catalog data_catalog
COPY storage storage
COPY personsearch_core personsearch_core
COPY flows flows
RUN PIP_EXTRA_INDEX_URL=$TORCH_INDEX /opt/personsearch/bin/pip install --no-cache-dir --disable-pip-version-check \
       -c constraints.txt '.[s3,export,ann,metric-learning]'

FROM python:${PYTHON}-slim
# For compute.compile:
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/personsearch /opt/personsearch
RUN useradd --create-home --uid 1000 personsearch && install -d -o personsearch /data
USER 1000
WORKDIR /data
ENV PATH=/opt/personsearch/bin:$PATH PREFECT_SERVER_ANALYTICS_ENABLED=false DO_NOT_TRACK=1
ENTRYPOINT ["personsearch"]
CMD ["--help"]
