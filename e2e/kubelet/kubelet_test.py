"""The tests of kubelet in their order: those that share a node side by side, then those that need one alone."""

import unittest

import lifecycle_test
import pods_test
import resources_test
import restart_test
import static_node
import whole_node_test
from together import Together

SIDE_BY_SIDE = [pods_test, lifecycle_test, resources_test]
ALONE = [restart_test, whole_node_test]


def load_tests(loader, _tests, _pattern):
    side_by_side = [test for module in SIDE_BY_SIDE for suite in loader.loadTestsFromModule(module) for test in suite]
    return unittest.TestSuite([Together(side_by_side, static_node.shared), *(loader.loadTestsFromModule(m) for m in ALONE)])
