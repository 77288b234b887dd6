"""Configuration: frozen, validated sections. Imports no torch, knows no data set."""
