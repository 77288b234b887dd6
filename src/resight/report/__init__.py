"""Pictures of rankings and curves, and the demo."""
