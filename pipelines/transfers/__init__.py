"""Downloads over HTTP: resumed, verified, within one request budget for the whole cluster."""
