from __future__ import annotations

import traceback

import pytest
import trio

from armillary._runtime.groups import single_exception


def raised(error: BaseException) -> BaseException:
    """What comes out of the block when an exception is raised in it."""
    try:
        with single_exception():
            raise error
    except BaseException as out:
        return out


def test_a_block_that_raises_nothing_is_left_alone() -> None:
    """Nothing in, nothing out, and the block's body has run."""
    ran = False
    with single_exception():
        ran = True
    assert ran


@pytest.mark.parametrize("error", [KeyError("key"), KeyboardInterrupt(), SystemExit(3)])
def test_a_single_exception_comes_out_as_itself(error: BaseException) -> None:
    """The same object, bare, in a group, or in groups within groups, whatever kind of exception it is."""
    assert error is raised(error)
    assert error is raised(BaseExceptionGroup("one", [error]))
    assert error is raised(BaseExceptionGroup("outer", [BaseExceptionGroup("inner", [error])]))


@pytest.mark.parametrize("members", [[KeyError(1), ValueError(2)], [KeyError(1), KeyboardInterrupt()]])
def test_a_real_group_stays_a_group(members: list[BaseException]) -> None:
    """Several exceptions come out together, in the very group that they came in."""
    group = BaseExceptionGroup("several", members)
    assert group is raised(group)


def test_a_real_group_comes_out_of_the_groups_around_it() -> None:
    """What is wrapped for nothing is unwrapped down to where there are several."""
    group = ExceptionGroup("several", [KeyError(1), ValueError(2)])
    assert group is raised(BaseExceptionGroup("outer", [ExceptionGroup("middle", [group])]))


def failing_with_cause() -> KeyError:
    try:
        try:
            raise OSError("the cause")
        except OSError as error:
            raise KeyError("the effect") from error
    except KeyError as error:
        return error


def failing_in_a_handler() -> KeyError:
    try:
        try:
            raise OSError("the context")
        except OSError:
            raise KeyError("the effect")  # noqa: B904 - an implicit chain is what this is about
    except KeyError as error:
        return error


def failing_alone() -> KeyError:
    try:
        raise KeyError("alone") from None
    except KeyError as error:
        return error


@pytest.mark.parametrize("fail", [failing_with_cause, failing_in_a_handler, failing_alone])
def test_chained_causes_are_kept_and_the_group_is_not_among_them(fail: type[KeyError]) -> None:
    """An unwrapped exception shows what it was raised from, and no trace of the group that held it."""
    error = fail()
    chain = error.__cause__, error.__context__, error.__suppress_context__
    assert error is raised(ExceptionGroup("one", [error]))
    assert chain == (error.__cause__, error.__context__, error.__suppress_context__)
    assert "ExceptionGroup: " not in "".join(traceback.format_exception(error))


async def test_cancellation_passes() -> None:
    """Cancelled goes through to its own scope, alone or from a nursery inside the block."""
    with trio.CancelScope() as scope:
        with single_exception():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                scope.cancel()
                await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_the_body_of_a_block_with_a_nursery_raises_its_own_error() -> None:
    """What a block's body raises comes out bare although a nursery inside wrapped it and ended a task."""
    with pytest.raises(KeyError, match="mine"):
        with single_exception():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                raise KeyError("mine")


async def test_an_error_beside_a_cancellation_from_outside_is_a_group() -> None:
    """A cancellation from outside still reaches its scope when an error comes with it."""
    with trio.CancelScope() as scope:
        with pytest.RaisesGroup(ValueError, flatten_subgroups=True):
            with trio.CancelScope() as inner:
                with single_exception():
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(trio.sleep_forever)
                        try:
                            inner.cancel()
                            await trio.sleep_forever()
                        finally:
                            raise ValueError("while it was cancelled")
    assert not scope.cancelled_caught
