"""x"""

LICENCES = {"world": "Apache-2.0 (made by saven_hf)"}
