"""The page that people watch, and the metrics that Prometheus reads. It owns nothing, and nobody notices when it stops."""
