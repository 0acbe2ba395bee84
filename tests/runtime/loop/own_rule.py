"""A rule of a user's own, as one writes it in a few lines: half of everything, shared by backlog."""

from __future__ import annotations


class Halves:
    name = "halves"

    def start(self, setting):
        self.setting = setting

    def observe(self, device, channel_gain):
        pass

    def local(self, device, waiting):
        return waiting.work / waiting.work.sum() * self.setting.max_local_frequency_hz[device] / 2

    def transmission(self, device, waiting, channel_gain):
        return waiting.work * 1e3, self.setting.max_power_w[device] / 2

    def edge(self, waiting):
        return waiting.work / waiting.work.sum() * self.setting.max_edge_frequency_hz / 2
