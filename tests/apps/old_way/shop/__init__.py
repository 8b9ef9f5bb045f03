"""A small shop."""
import logging

import c2cwsgiutils.pyramid
from c2cwsgiutils import broadcast, stats as statistics  # what we measure
from c2cwsgiutils.health_check import HealthCheck, JsonCheckException
from pyramid.config import Configurator

from shop import models

LOG = logging.getLogger(__name__)
SQL = logging.getLogger('c2cwsgiutils.sql_profiler')
HAPPY = True


@broadcast.decorator(expect_answers=True)
def set_mood(happy):
    global HAPPY
    HAPPY = happy
    return {'happy': happy}


def mood(request):
    if not HAPPY:
        raise JsonCheckException('not happy', {'why': 'it rains'})
    return 'happy'


def main(global_config, **settings):
    config = Configurator(settings=settings, route_prefix='/api')
    config.include(c2cwsgiutils.pyramid.includeme)  # everything
    models.init(config)
    config.scan("shop.views")

    health_check = HealthCheck(config)
    health_check.add_db_session_check(models.DBSession, at_least_one_model=models.Hello)
    health_check.add_custom_check(name='mood', check_cb=mood, level=2)
    statistics.increment_counter(['start'], 1)
    return config.make_wsgi_app()
