# One image for every service and for the `cutover` command; compose.yaml says how each is run. `--target nats` is the NATS server,
# with a folder for its journal that a user without privileges may write. Nothing here starts a shell.

FROM python:3.11-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml requirements.lock README.md ./
COPY tools/part-of-lock tools/part-of-lock
# What is locked, each file checked against its hash; without the tools for tests and linting.
RUN ["python", "tools/part-of-lock", "/build/run.txt"]
RUN ["python", "tools/part-of-lock", "/build/build.txt", "setuptools"]
ENV PYTHONPATH=/build/tools
RUN ["python", "-m", "pip", "install", "--target", "/build/tools", "--require-hashes", "--no-deps", "--only-binary", ":all:", "--requirement", "/build/build.txt"]
RUN ["python", "-m", "venv", "--without-pip", "/opt/cutover"]
RUN ["python", "-m", "pip", "--python", "/opt/cutover/bin/python", "install", "--require-hashes", "--no-deps", "--only-binary", ":all:", "--requirement", "/build/run.txt"]
COPY services services
COPY shared shared
RUN ["python", "-m", "pip", "wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", "/build/wheels", "."]
RUN ["python", "-m", "pip", "--python", "/opt/cutover/bin/python", "install", "--no-deps", "--no-index", "--find-links", "/build/wheels", "cutover"]

FROM nats:2.15.1-alpine AS nats
RUN ["install", "-d", "-o", "10001", "-g", "10001", "-m", "0750", "/data"]
USER 10001:10001

FROM python:3.11-slim-bookworm AS cutover
# The base has the standard library uncompiled: in a read-only file system it would be compiled anew at each start and each health check. What
# cannot be compiled (examples of mistakes, where the base has tests) is imported by nobody.
RUN ["python", "-c", "import compileall, re, sysconfig; compileall.compile_dir(sysconfig.get_path('stdlib'), rx=re.compile('/site-packages/'), quiet=2)"]
COPY --from=build /opt/cutover /opt/cutover
# A new volume that is mounted on one of these takes over its owner.
RUN ["install", "-d", "-o", "10001", "-g", "10001", "-m", "0750", "/run/cutover", "/srv/volumes"]
RUN ["install", "-d", "-o", "10001", "-g", "10001", "-m", "0700", "/var/lib/cutover"]
ENV PATH=/opt/cutover/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin
ENV CUTOVER_HEALTH_SOCKET=/tmp/health.sock
# Of the folder that a command is run in, no file is taken for one of the program's.
ENV PYTHONSAFEPATH=1
WORKDIR /var/lib/cutover
USER 10001:10001
CMD ["cutover", "--help"]
