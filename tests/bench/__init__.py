"""What the benchmarks say of themselves. That they measure, `make bench ARGS=--quick` shows."""
