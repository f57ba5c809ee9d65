# The cluster agent. From the top of the repository:
#   docker build -f deploy/docker/agent.Dockerfile -t exposer-agent:0.1.0 .
FROM rust:1.95.0-slim-bookworm AS build
WORKDIR /src
COPY . .
# The toolchain of the image is the pinned one; nothing may be installed on the way.
ENV RUSTUP_AUTO_INSTALL=0
RUN cargo build --release --locked --package exposer-agent

FROM debian:12.11-slim
# A numeric user, so that runAsNonRoot can be judged without looking into the image. No shell is needed, no package is
# installed: the binary needs glibc and libgcc, and takes the cluster's certificate from its service account.
COPY --from=build /src/target/release/exposer-agent /usr/local/bin/exposer-agent
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/usr/local/bin/exposer-agent"]
CMD ["run"]
