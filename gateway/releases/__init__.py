"""What is declared to be served: model version and preprocessor version together."""
