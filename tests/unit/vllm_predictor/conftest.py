"""LoRA adapters as peft writes them, made without peft."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file


@pytest.fixture
def make_adapter(tmp_path):
    """Writes an adapter's folder below `adapters`; keywords change its configuration."""

    def make(name, *, fill=1.0, **config):
        folder = tmp_path / "adapters" / name
        folder.mkdir(parents=True, exist_ok=True)
        config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q"], **config}
        (folder / "adapter_config.json").write_text(json.dumps(config))
        tensors = {"base_model.model.q.lora_A.weight": np.full((4, 8), fill, np.float32)}
        save_file(tensors, folder / "adapter_model.safetensors")
        return folder

    return make
