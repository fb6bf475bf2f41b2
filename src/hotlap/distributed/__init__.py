"""Training by many processes and machines, over Ray: workers, the parameter server, sweeps."""
