"""The Flask application."""

from __future__ import annotations

from http import HTTPStatus

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from loadtests.baselines import messages
from loadtests.baselines.flask_transformers.models import Models


def application(models: Models) -> Flask:
    """Return the application over these models."""
    app = Flask(__name__)

    @app.get("/readyz")
    def ready() -> Response:
        return _json(b'{"ready":true}')

    @app.post("/<name>_single_predict")
    def single(name: str) -> Response:
        return predict(name, "single")

    @app.post("/<name>_batch_predict")
    def batch(name: str) -> Response:
        return predict(name, "batch")

    def predict(name: str, form: messages.Form) -> Response:
        if name not in models:
            raise messages.Refused(HTTPStatus.NOT_FOUND, f"no model {name}")
        texts = messages.texts(form, request.get_data(cache=False))
        model = models[name]
        return _json(messages.answer(form, model.output, model.predict(texts)))

    @app.errorhandler(messages.Refused)
    def refused(error: messages.Refused) -> Response:
        return _json(messages.problem(error.reason), error.status)

    @app.errorhandler(HTTPException)
    def failed(error: HTTPException) -> Response:
        return _json(messages.problem(error.name), error.code or 500)

    return app


def _json(body: bytes, status: int = 200) -> Response:
    return Response(body, status, content_type=messages.JSON)
