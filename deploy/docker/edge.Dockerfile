# The edge, for those who run everything in containers; the systemd unit in deploy/systemd is the usual way. From the
# top of the repository:
#   docker build -f deploy/docker/edge.Dockerfile -t exposer-edge:0.1.0 .
# It forwards for the host, so it runs in the host's network namespace, with the host's bpffs, and as root with these
# capabilities alone:
#   docker run --network host --cap-drop ALL --cap-add BPF --cap-add NET_ADMIN --cap-add NET_RAW --cap-add PERFMON \
#     --cap-add NET_BIND_SERVICE --volume /sys/fs/bpf:/sys/fs/bpf --volume /var/lib/exposer:/var/lib/exposer \
#     --volume /etc/exposer:/etc/exposer:ro --read-only exposer-edge:0.1.0
FROM rust:1.95.0-slim-bookworm AS build
WORKDIR /src
COPY . .
ENV RUSTUP_AUTO_INSTALL=0
# The kernel programs are built with Debian's own packages, unpacked under target/, and embedded in the binary.
RUN apt-get update \
 && cargo xtask build-ebpf \
 && cargo build --release --locked --package exposer-edge \
 && rm -rf /var/lib/apt/lists/*

FROM debian:12.11-slim
COPY --from=build /src/target/release/exposer-edge /usr/local/bin/exposer-edge
ENTRYPOINT ["/usr/local/bin/exposer-edge"]
CMD ["run"]
