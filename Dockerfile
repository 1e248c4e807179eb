# syntax=docker/dockerfile:1
# An image with one file in it. The program is linked statically against musl: no shell, no libraries, no package manager
# to keep up to date. Beside it, whom TLS with endpoints trusts where no authority is named.

FROM rust:1.95-alpine AS build
# ring compiles a little C and assembly; jemalloc is C with a configure script.
RUN apk add --no-cache ca-certificates gcc make musl-dev
WORKDIR /src
COPY . .
# rustup's toolchain for musl links statically by default. What cargo downloads and builds is kept between builds.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin floodway --features jemalloc \
    && cp target/release/floodway /floodway

FROM scratch
COPY --from=build /floodway /floodway
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
# A number, so that `runAsNonRoot` can be checked without /etc/passwd.
USER 65532:65532
EXPOSE 8080 9901
ENTRYPOINT ["/floodway"]
CMD ["gateway"]
