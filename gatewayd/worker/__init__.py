"""The inference worker: a program of its own, so that a model that crashes takes down nothing but itself.

It is started by path under any interpreter from Python 3.8 that has the engine and numpy (`PYTHON gatewayd/worker/__main__.py`),
or as `python -m gatewayd.worker`. It imports the standard library, numpy, its engine and nothing else of gatewayd.

    framing    bytes ↔ frames; the operations and their answers (both sides use it)
    channel    the transport: blocking frames over an inherited socket
    engines    what an engine is; which there are
    tflite     LiteRT and tflite-runtime
    tflm       TensorFlow Lite Micro
    arena      the smallest arena, found by trying in forked children
    capture    what an engine said on stderr
    limits     what the process denies itself
    awake      waiting by asking instead of sleeping, where something is due within a moment (both sides use it)
    serve      one operation after another until the other side closes
"""
