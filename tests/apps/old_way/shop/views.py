import logging

import c2cwsgiutils.services
import c2cwsgiutils.stats as stats
from c2cwsgiutils import (
    auth,    # who may
    version,
)

import shop
from shop.models import DBSession, Hello  # noqa: F401

LOG = logging.getLogger(__name__)

hello_service = c2cwsgiutils.services.create("hello", "/hello", cors_credentials=True)
mood_service = c2cwsgiutils.services.create("mood", "/mood")


@hello_service.get()
def hello_get(request):
    """
    Say hello, and measure how long that takes.
    """
    with stats.timer_context(['shop', 'hello']):
        hello = shop.models.DBSession.query(Hello).first()
        LOG.info("hello %s", hello.value, extra={'shop': 1})
        return {'value': hello.value, 'id': request.c2c_request_id, 'version': version.get_version()}


@mood_service.put()
def mood_put(request):
    auth.auth_view(request)
    return shop.set_mood(happy=request.params['happy'] == 'true')
