"""What an exported model must keep of the one that it was made from."""

from __future__ import annotations

from pydantic import Field

from mlcicd.config.base import Section


class Export(Section):
    """What an exported model must keep of the one that it was made from, measured on the holdout."""

    agreement: float = Field(
        0.999, ge=0, le=1, description="Smallest share of rows with the same class, and numbers within the tolerance."
    )
    tolerance: float = Field(
        1e-3, ge=0, description="Largest difference between two numbers that agree; of numbers above 1, relative."
    )
    quantized_tolerance: float = Field(0.05, ge=0, description="The same, for a quantized model.")
    size_ratio: float = Field(2.0, gt=0, description="Largest size of the exported file, as a multiple of the model's.")
    latency_ratio: float = Field(
        1.0, gt=0, description="Largest median time of a prediction of one row, as a multiple of the model's."
    )
