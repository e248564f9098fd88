"""How many slots a device's free memory is worth; the devices are stand-ins that name theirs."""

import os
import types

import numpy as np
import pytest

from mucode_jax.models import llama
from mucode_jax.sampling import memory
from tests.models import tiny

CONFIG = tiny.CONFIGS["llama3"]
CONTEXT = 256
EACH = memory.slot_bytes(CONFIG, CONTEXT) // 3  # of an accelerator


def accelerator(free, used=1000):
    stats = {"bytes_limit": free + used, "bytes_in_use": used}
    return types.SimpleNamespace(platform="gpu", memory_stats=lambda: stats)


def mesh(*devices, fsdp=1, tensor=1):
    shape = {"data": len(devices) // (fsdp * tensor), "fsdp": fsdp, "tensor": tensor}
    return types.SimpleNamespace(devices=np.array(devices), shape=shape)


def test_a_slot_is_a_key_and_a_value_of_every_layer_and_token():
    whole = 2 * 2 * CONTEXT * 2 * 8 * 4  # both, layers, tokens, heads, width, bytes
    assert memory.slot_bytes(CONFIG, CONTEXT) == whole
    assert memory.slot_bytes(CONFIG, CONTEXT - 1) == whole  # in whole pages


def test_on_an_accelerator_a_third_of_it_is_there_for_each_but_a_whole_one_for_all():
    device = mesh(accelerator(0))
    assert memory.slot_bytes(CONFIG, CONTEXT, device) == EACH
    pages = CONTEXT // llama.PAGE
    assert [memory.pool_pages(n, CONTEXT, device) for n in (1, 3, 4, 300)] == [
        *(pages + 1, pages + 1, 2 * pages + 1, 100 * pages + 1)
    ]
    assert memory.pool_pages(300, CONTEXT) == 300 * pages + 1


def test_the_free_memory_of_an_accelerator_is_filled_to_four_fifths():
    assert memory.fitting_slots(CONFIG, CONTEXT, mesh(accelerator(100 * EACH))) == 80
    assert memory.fitting_slots(CONFIG, CONTEXT, mesh(accelerator(99 * EACH))) == 72
    assert memory.fitting_slots(CONFIG, CONTEXT, mesh(accelerator(10**6 * EACH))) == 1024


def test_devices_add_up_where_the_cache_is_split_and_the_fullest_decides():
    two = accelerator(100 * EACH), accelerator(50 * EACH)
    assert memory.fitting_slots(CONFIG, CONTEXT, mesh(*two)) == 80
    assert memory.fitting_slots(CONFIG, CONTEXT, mesh(*two, tensor=2)) == 80
    four = [accelerator(50 * EACH)] * 4
    assert memory.fitting_slots(CONFIG, CONTEXT, mesh(*four, tensor=4)) == 160
    # 6 columns do not part into 4: each device holds them all.
    odd = tiny.CONFIGS["llama32"]
    four = [accelerator(50 * memory.slot_bytes(odd, CONTEXT) // 3)] * 4
    assert memory.fitting_slots(odd, CONTEXT, mesh(*four, tensor=4)) == 40


def test_at_most_all_of_the_free_memory_can_be_filled():
    two = accelerator(100 * EACH), accelerator(5 * EACH)
    assert memory.most_slots(CONFIG, CONTEXT, mesh(two[0])) == 100
    assert memory.most_slots(CONFIG, CONTEXT, mesh(*two)) == 10  # split: the fullest decides
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < memory.most_slots(CONFIG, CONTEXT) <= pages // (3 * EACH)  # of this machine


def test_a_device_that_is_full_says_what_a_slot_takes():
    with pytest.raises(ValueError, match="holds 4 slots of 256 tokens .* lower the context"):
        memory.fitting_slots(CONFIG, CONTEXT, mesh(accelerator(5 * EACH)))
