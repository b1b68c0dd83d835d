"""Where the bytes are: local files and block devices, remote exports, and the engines that do their I/O."""
