"""The model server: answers MLflow's routes and the Open Inference Protocol for one MLflow model.

Run the folder by path, with the interpreter of the model's own environment::

    python .../mlcicd/serving/server --model DIR --name NAME --version VERSION --port 8080

It imports nothing of mlcicd, only the standard library and what an environment that can load an MLflow
model has (mlflow, numpy, pandas, uvicorn), and keeps to Python 3.9. Beside MLflow's own routes
(`/invocations`, `/ping`, `/health`, `/version`) it answers the Open Inference Protocol v2 and `/metrics`
in Prometheus' text format.

Answers on errors are ``{"error_code", "message"}``: 400 for input the signature refuses, 413 for a body
above the limit, 500 for an exception or an answer JSON can not carry, 503 before the model is loaded or
above the concurrency limit, 504 after the time limit. No answer holds a traceback or a string of the request.
"""
