# syntax=docker/dockerfile:1

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
COPY src src
COPY migrations migrations
COPY openapi openapi
COPY tests tests
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked && cp target/release/causeway /causeway

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --system --gid 65532 causeway \
    && useradd --system --uid 65532 --gid 65532 --no-create-home --shell /usr/sbin/nologin causeway \
    && install --directory --owner causeway --group causeway --mode 0700 /data
COPY --from=build /causeway /usr/local/bin/causeway
USER 65532:65532
ENV CAUSEWAY_DATA_DIR=/data
VOLUME /data
WORKDIR /data
EXPOSE 8080
# Profile dev listens on loopback only: run with --network host, or share another container's network.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 CMD ["causeway", "healthcheck"]
# SIGTERM drains: new work is refused, streams end at a frame boundary, requests in flight finish.
STOPSIGNAL SIGTERM
ENTRYPOINT ["causeway"]
CMD ["serve"]
