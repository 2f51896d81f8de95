# The one image of the one program: every role of a testbed in containers.
#
#   docker build .                                     compiles in the image
#   docker build --target prebuilt .                   takes target/release/longhaul, built outside for this image's
#                                                      Debian or an older one (tests)
ARG RUST=1.95
ARG DEBIAN=bookworm

FROM rust:${RUST}-${DEBIAN} AS build
WORKDIR /src
# cmake: for the TLS library of the exporter.
RUN apt-get update && apt-get install -y --no-install-recommends cmake && rm -rf /var/lib/apt/lists/*
COPY . .
# Cached: the registry and what was compiled, dependencies included. The program is copied out of the cache.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked && cp target/release/longhaul /longhaul

# What every image runs on: tc and ip for the links; nothing else is added to Debian.
FROM debian:${DEBIAN}-slim AS base
RUN apt-get update && apt-get install -y --no-install-recommends iproute2 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt /var/log/*.log /var/log/apt \
    && useradd --system --uid 10001 --user-group --home-dir /data --create-home longhaul
VOLUME /data
WORKDIR /data
ENTRYPOINT ["longhaul"]
CMD ["--help"]

FROM base AS prebuilt
COPY --chmod=755 target/release/longhaul /usr/local/bin/longhaul
USER longhaul

FROM base AS longhaul
COPY --from=build --chmod=755 /longhaul /usr/local/bin/longhaul
USER longhaul
