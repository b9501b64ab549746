"""What stands beside the gateway: applications for uvicorn, each as its library's own manual has it, and no more."""
