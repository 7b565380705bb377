"""A stand-in that notes its calls; a built model runs the traced network on the CPU."""

import json
from types import SimpleNamespace

import torch
from recorded import note

ModelKind = SimpleNamespace(kPytorch="pytorch")
DataType = SimpleNamespace(FLOAT32="float32")
QuantizationAlgorithm = SimpleNamespace(LINEAR_ALGORITHM="linear")
Code = SimpleNamespace(OUT_OF_RANGE="out of range")


class Status:
    def __init__(self, code="", message=""):
        self.message = message

    def ok(self):
        return not self.message

    @staticmethod
    def OK():
        return Status()


class Dims:
    def __init__(self, sides):
        self.sides = list(sides)


class Network:
    def get_input(self, number):
        def set_dimension(dims):
            note("set_dimension", dims.sides)
            return Status()

        return SimpleNamespace(set_dimension=set_dimension)


class BuilderConfig:
    def parse_from_string(self, text):
        note("parse_from_string", json.loads(text))
        return Status()


class CalibDataInterface:
    pass


class Calibrator:
    def __init__(self, data):
        self.data = data[0]

    def set_quantization_algorithm(self, algorithm):
        note("set_quantization_algorithm", algorithm)
        return Status()

    def calibrate(self, network, config):
        self.data.reset()
        samples = 0
        while self.data.next().ok():
            assert list(self.data.get_sample().shape) == self.data.get_shape().sides
            assert str(self.data.get_sample().dtype) == self.data.get_data_type()
            samples += 1
        note("calibrate", samples)
        return Status()


class Builder:
    def build_model(self, name, network, config):
        note("build_model", name)
        return Model(network.traced)


class Model:
    EngineConfig = SimpleNamespace

    def __init__(self, traced=""):
        self.traced = traced

    def serialize_to_file(self, path):
        note("serialize_to_file", path)
        with open(path, "w") as file:
            file.write(self.traced)
        return Status()

    def deserialize_from_file(self, path):
        note("deserialize_from_file", path)
        with open(path) as file:
            self.traced = file.read()
        return Status()

    def create_i_engine(self, config):
        note("create_i_engine", config.device_type)
        return self

    def create_i_context(self):
        return self

    def create_inputs(self):
        self.tensor = Tensor()
        return [self.tensor]

    def enqueue(self, inputs, outputs, queue):
        note("enqueue", list(self.tensor.array.shape))
        found = torch.jit.load(self.traced)(torch.from_numpy(self.tensor.array))
        outputs.extend(SimpleNamespace(asnumpy=level.detach().numpy) for level in found)
        return Status()


class Tensor:
    def from_numpy(self, array):
        self.array = array

    def to(self, device):
        assert device.id == 0


class Device:
    def active(self):
        note("active", self.id)
        return Status()

    def create_queue(self):
        return SimpleNamespace(sync=Status.OK)


class System:
    def __enter__(self):
        return self

    def __exit__(self, *problem):
        pass
