"""The control plane: makes what runs follow what is declared, and publishes the routing table."""
