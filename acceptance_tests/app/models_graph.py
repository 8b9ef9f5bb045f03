"""``python -m acceptance_tests.app.models_graph | dot -Tsvg > models.svg``: the model of this application, drawn."""

from __future__ import annotations

from acceptance_tests.app import models
from c2c_otel.models_graph import generate_model_graph

if __name__ == "__main__":
    generate_model_graph(models)
