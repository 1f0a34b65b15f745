"""What vector stores need to serve a cut or a funnel: one file a store, in one registry (`stores.py`)."""
