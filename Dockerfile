# syntax=docker/dockerfile:1
# An image with two files in it: the program, linked statically (no shell, no libraries, no package manager to keep up to
# date), and whom TLS with endpoints trusts where no authority is named. It is built on Debian, so the C library in the program is
# glibc; ARCHITECTURE.md, "The image", says why. For another processor it is compiled across, not emulated:
#   docker buildx build --platform linux/amd64,linux/arm64 .
# deploy/image.sh makes the same image without a container engine, and reads what stands below `FROM scratch` from here.

FROM --platform=$BUILDPLATFORM rust:1.95-bookworm AS build
ARG TARGETARCH
# A compiler for the other processor: ring and jemalloc are C and assembly.
RUN case "${TARGETARCH:-$(dpkg --print-architecture)}" in \
      "$(dpkg --print-architecture)") exit 0 ;; \
      arm64) compiler="gcc-aarch64-linux-gnu libc6-dev-arm64-cross"; target=aarch64-unknown-linux-gnu ;; \
      amd64) compiler="gcc-x86-64-linux-gnu libc6-dev-amd64-cross"; target=x86_64-unknown-linux-gnu ;; \
      *) echo "error: Floodway is built for amd64 and arm64, not for $TARGETARCH" >&2; exit 1 ;; \
    esac \
    && apt-get update && apt-get install --yes --no-install-recommends $compiler && rm -rf /var/lib/apt/lists/* \
    && rustup target add "$target"
WORKDIR /src
COPY . .
# What cargo downloads and builds is kept between builds.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cp "$(deploy/program.sh --arch "${TARGETARCH:-$(dpkg --print-architecture)}")" /floodway

# The same program with iptables beside it, for the capture step of sidecars on nodes whose kernel has no nf_tables (`--target capture`; the value
# injector.capture.image of the chart). It runs as root, in a container that may do nothing but change its pod's network.
FROM debian:13-slim AS capture
RUN apt-get update && apt-get install --yes --no-install-recommends iptables && rm -rf /var/lib/apt/lists/*
COPY --from=build /floodway /floodway
ENTRYPOINT ["/floodway"]
CMD ["capture"]

FROM scratch
COPY --from=build /floodway /floodway
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
# `make image` adds what is known of the source (deploy/image.sh --labels): version, revision, time of the commit, address.
LABEL org.opencontainers.image.title="Floodway" \
      org.opencontainers.image.description="A Kubernetes-native ingress and sidecar for streams" \
      org.opencontainers.image.licenses="Apache-2.0"
# A number, so that `runAsNonRoot` can be checked without /etc/passwd.
USER 65532:65532
EXPOSE 8080 8443 9901
ENTRYPOINT ["/floodway"]
CMD ["gateway"]
