"""A training step without a Trainer around."""

from embedtrain.training.module import TrainModule


class Stepped(TrainModule):
    """The training step as DDP calls it, without a Trainer around."""

    def forward(self, batch, number):
        return self.training_step(batch, number)

    def log(self, *_, **__):
        pass


class FakeTrainer:
    """What a training step asks of Lightning's."""

    global_step = 3
    accumulate_grad_batches = 1

    def __init__(self, rank):
        self.global_rank, self.strategy = rank, self

    def backward(self, loss, optimizer):
        loss.backward()
